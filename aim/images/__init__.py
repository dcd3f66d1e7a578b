"""Images in and out: any file as RGB pixels, and pictures as PNG, GIF and sheets."""
