"""A finished run as one file that works on other machines."""
