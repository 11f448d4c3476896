"""HTML to text, with maths and code kept (Llama 3, section 3.1.1)."""

from l3_platform.extract.page import ExtractError, Page, extract

__all__ = ["ExtractError", "Page", "extract"]
