"""What can become of a task of a recipe besides success.

AlignmentError
|- TaskFailed     its program failed: tried again `retries` times, then reported
|  `- TaskLost    its worker was lost, and the experiment forbids starting it again
|- TaskStopped    a user or another driver stopped it: nobody's fault
`- GangBroken     another process of its group has ended: all start again
   `- GangLost    its own worker was lost: as GangBroken, and it counts as no failure
"""

from alignment.errors import AlignmentError


class TaskFailed(AlignmentError):
    """The program of a task failed, or left something that cannot be kept."""


class TaskLost(TaskFailed):
    """The worker of a task was lost, and `recovery` is off."""


class TaskStopped(AlignmentError):
    """A task was stopped from outside."""


class GangBroken(AlignmentError):
    """Another process of a group has ended, so that this one cannot go on."""


class GangLost(GangBroken):
    """This process of a group was started a second time, after its worker was lost."""
