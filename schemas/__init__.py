"""The contract: what devices may say, what the fleet answers, what the stores hold.

Everything else in this repository imports these modules; they import pydantic alone.
"""
