from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under `--dist loadgroup` a file stays on one worker, for its fixtures, and so do all that train over real networks:
    their rendezvous has a fixed port."""
    for item in items:
        path = item.path.relative_to(REPOSITORY / "tests")
        networked = path.parts[0] == "launch" or path.name in ("test_hosts.py", "test_slurm.py")
        item.add_marker(pytest.mark.xdist_group("launch" if networked else str(path)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data for tests, which is no part of the project: `shared/data` beside the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("real data is absent: there is no folder shared/data beside the repository")
    return folder
