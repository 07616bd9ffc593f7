"""What ``--input`` names, as recordings; it does not know what is in them."""
