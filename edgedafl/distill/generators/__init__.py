"""Networks from codes to images."""

from edgedafl.distill.generators.published import PublishedGenerator
from edgedafl.distill.generators.slim import SlimGenerator
from edgedafl.distill.generators.tone import Tone, tone_of

__all__ = ["PublishedGenerator", "SlimGenerator", "Tone", "tone_of"]
