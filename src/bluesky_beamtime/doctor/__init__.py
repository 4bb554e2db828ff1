"""What may trouble a beamtime, found before it does, with what mends it."""

from .examining import examine as examine
from .finding import Finding as Finding
from .finding import Report as Report
