"""The kinds of failure, each with one meaning."""

from schemas.rejections import Reason


class InvalidMessage(Exception):
    """These bytes will fail again: keep them with the reason, acknowledge the delivery."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail[:256]


class Unavailable(Exception):
    """Somebody else may heal: back off, keep everything, try again."""

    def __init__(self, what: str, retry_after_s: float | None = None) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s


class BucketAtFault(Unavailable):
    """The store refuses what many devices say: a person has to mend it, and no message is to blame."""


class NoRoom(Unavailable):
    """The disk is full: nothing of what was tried has happened, and it can be tried again once there is room."""


class Mistake(Exception):
    """A person's mistake: one sentence that says what is wrong, where, and what to do."""

    def __init__(self, sentence: str, exit_code: int = 2) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


EXIT_LOCKED = 73
"""Another worker owns the journal."""

EXIT_DISK = 74
"""The disk under the journal failed, or the journal is damaged; nothing unsaved was acknowledged."""

EXIT_THREAD = 70
"""A thread died of a defect; the supervisor starts the worker again."""
