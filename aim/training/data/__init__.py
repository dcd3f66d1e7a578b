"""What training reads: sources of images, and codes made from them."""
