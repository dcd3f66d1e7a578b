"""The page: ``python app.py``, and what a Hugging Face Space runs.

AIM_MODEL, AIM_DEVICE, AIM_DTYPE and AIM_BACKEND choose what it shows.
"""

from aim.settings import Settings
from aim.ui import LAUNCH, build

settings = Settings.from_env()
demo = build(settings.model, device=settings.device, dtype=settings.dtype, backend=settings.backend)

if __name__ == "__main__":
    demo.launch(**LAUNCH)
