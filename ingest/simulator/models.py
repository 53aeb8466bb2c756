"""The five fictional models, and how a face feels to each."""

LUMABAR, TONEDUO, TONETIP, URSA, GELWAVE = (
    "lumabar-s15", "toneduo-400", "tonetip-e", "ursa-adapt-10", "gelwave-multi",
)  # fmt: skip
MODELS = (LUMABAR, TONEDUO, TONETIP, URSA, GELWAVE)

_BASE_OHM = {LUMABAR: 40_000.0, TONEDUO: 8_000.0, TONETIP: 18_000.0}


def base_ohm(model: str) -> float:
    """Impedance of an average face with fresh gel, Ω."""
    return _BASE_OHM.get(model, 9_000.0)
