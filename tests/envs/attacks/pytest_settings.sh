# Settings select other tests or load a plugin; each file that pytest reads, and its kin.
printf '[pytest]\naddopts = -k small\n' > pytest.ini
printf '[pytest]\naddopts = -k small\n' > .pytest.ini
printf '[pytest]\naddopts = --collect-only\n' > tox.ini
printf '[tool:pytest]\naddopts = -p tiny\n' > setup.cfg
printf '[tool.pytest.ini_options]\naddopts = "-x"\n' > pyproject.toml
printf '[run]\nplugins = tiny\n' > .coveragerc
