"""LEMUR, both ways: what was validated goes there as if LEMUR had made it; what LEMUR knows comes here."""
