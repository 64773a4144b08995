"""What every process of the system takes from its machine: what its environment names, files of its user alone,
threads, signals, its log, the garbage collector, and what a terminal may be shown.

The edge of the domain: the only room besides `rest`, `store` and `state` in which it touches the world.
"""

from .environment import code_named, secret, secret_of_file, switched_on
from .failpoints import reach
from .garbage import collect_seldom, freeze
from .log import start_log
from .private_files import NotPrivate, check_private, make_private_folder, open_private
from .signals import end_children, end_soon, on_signals
from .terminal import plain, plain_line
from .worker import Workers

__all__ = [
    "NotPrivate",
    "Workers",
    "check_private",
    "code_named",
    "collect_seldom",
    "end_children",
    "end_soon",
    "freeze",
    "make_private_folder",
    "on_signals",
    "open_private",
    "plain",
    "plain_line",
    "reach",
    "secret",
    "secret_of_file",
    "start_log",
    "switched_on",
]
