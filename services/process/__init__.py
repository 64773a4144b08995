"""What every process of the system takes from its machine: what its environment names, threads, the garbage collector,
its log.

The edge of the domain: the only room besides `rest`, `store` and `state` in which it touches the world.
"""

from .environment import code_named, secret, secret_of_file
from .failpoints import reach
from .garbage import collect_seldom, freeze
from .log import start_log
from .worker import Workers

__all__ = ["Workers", "code_named", "collect_seldom", "freeze", "reach", "secret", "secret_of_file", "start_log"]
