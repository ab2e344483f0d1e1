"""What one customer sees of one delivery, and where they say what they wish, behind a signed link."""

from cloud_hub.web.track.pages import track_pages

__all__ = ["track_pages"]
