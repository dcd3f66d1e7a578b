"""The page: ``python app.py``, and what a Hugging Face Space runs.

Environment variables choose what it shows and where: docs/hosting.md lists them.
"""

from aim.settings import Settings
from aim.ui import build, serve

settings = Settings.from_env()
demo = build(settings.model, device=settings.device, dtype=settings.dtype, backend=settings.backend)

if __name__ == "__main__":
    serve(demo, mcp_server=settings.mcp)
