"""Recognise decoders without a row in the table of families, from their structure and one forward over few tokens."""

from dlbench.models.recognition.decoder import expected, recognise
from dlbench.models.recognition.observation import Unrecognised

__all__ = ["Unrecognised", "expected", "recognise"]
