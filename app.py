"""The page: ``python app.py``, and what a Hugging Face Space runs."""

from aim.ui import launch

if __name__ == "__main__":
    launch()
