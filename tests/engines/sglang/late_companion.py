"""SGLang's own server, with a midstep that lets the companions of certain requests come too late.

A request whose id begins with `late` begins without its companions, which are prefilled one step after it; one whose id
begins with `lost` loses them at its second retraction or later: they are not resumed with it.
"""

from typing import Any

from midstep_sglang import gang, shadows

together = gang.Adder.add_one_req


def apart(self: Any, req: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand for gang.Adder.add_one_req."""
    group = shadows.group_of(req)
    late = group is not None and req.rid.startswith("late")
    lost = group is not None and req.rid.startswith("lost") and len(req.output_ids) > 2
    if group is None or not (late or lost):
        return together(self, req, *args, **kwargs)
    delattr(req, shadows.GROUP)
    if late:
        shadows.gang_of(self.scheduler).next += group.shadows
    return together(self, req, *args, **kwargs)


gang.Adder.add_one_req = apart  # type: ignore[method-assign]

if __name__ == "__main__":
    import runpy

    runpy.run_module("sglang.launch_server", run_name="__main__")
