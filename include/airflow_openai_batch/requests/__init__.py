"""One line of requests: whether it is valid, how many tokens it has, which format of answer it asks for."""
