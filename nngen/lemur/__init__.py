"""Reading LEMUR: the wheel, a checkout or a database, in place."""
