"""Files of up to 1 MB that were made to do harm, for every place that is read."""
