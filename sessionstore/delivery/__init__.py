"""Deliveries to the remote over HTTP: the client, one drain, and the drain that goes on in the background.

What is to be done is decided in `remote`, without a network. There is one loop, which is asynchronous; synchronous callers run
it in a thread. Only so has a request a deadline that no slow name server and no trickle of bytes can stretch.
"""
