"""SGLang's own server, in a version that has changed one private place on which midstep holds."""

from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo


def renamed(self: SamplingBatchInfo, merged: SamplingBatchInfo) -> None:
    """Stand for SamplingBatchInfo.adjusted_merge_batch with another parameter."""


SamplingBatchInfo.adjusted_merge_batch = renamed

if __name__ == "__main__":
    import runpy

    runpy.run_module("sglang.launch_server", run_name="__main__")
