"""Export of validated trials to LEMUR, in the formats that LEMUR itself writes."""
