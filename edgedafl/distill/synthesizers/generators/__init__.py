"""Networks from codes to images."""

from edgedafl.distill.synthesizers.generators.published import PublishedGenerator
from edgedafl.distill.synthesizers.generators.slim import SlimGenerator
from edgedafl.distill.synthesizers.generators.tone import Tone, tone_of

__all__ = ["PublishedGenerator", "SlimGenerator", "Tone", "tone_of"]
