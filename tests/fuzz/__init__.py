"""Random input of four kinds against the parts that read it: ``make fuzz``."""
