"""What requests look like on the wire, and answers: a file for each protocol. Bytes and JSON in, events out; no socket."""
