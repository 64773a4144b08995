"""What every process of the system takes from its machine: what its environment names, threads, the garbage collector.

The edge of the domain: the only room besides `rest`, `store` and `state` in which it touches the world.
"""
