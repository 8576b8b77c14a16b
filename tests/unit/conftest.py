"""Property tests have no deadline: on a shared machine any single call may stand still a while."""

from hypothesis import settings

settings.register_profile("percipio", deadline=None)
settings.load_profile("percipio")
