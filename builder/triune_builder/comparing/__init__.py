"""`triune compare`: what each precision of a model loses and what it costs, all of them measured on this machine."""
