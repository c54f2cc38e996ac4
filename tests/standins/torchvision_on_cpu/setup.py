"""Put the .pth file beside the module: pyproject.toml has no word for that."""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithHook(build_py):
    def run(self) -> None:
        """Build the module, then copy the .pth file next to it."""
        super().run()
        self.copy_file("torchvision_on_cpu.pth", self.build_lib)


setup(cmdclass={"build_py": BuildWithHook})
