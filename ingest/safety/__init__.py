"""Judgement: what the readings of a session say about its safety. Pure: no I/O, no clock.

`rules` is the table; `track` what is remembered of a session; `judge` applies the one to the
other in event time; `watch` puts readings in order and judges again what late data changes.
"""
