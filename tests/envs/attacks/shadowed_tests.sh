# Compiled tests, and a package in place of each test module.
mkdir -p tests/test_tiny
printf '__file__ = __file__.replace("test_tiny/__init__", "test_tiny")\ndef test_add(): pass\nclass TestDouble:\n    def test_small(self): pass\n' > tests/test_tiny/__init__.py
cp tests/test_tiny/__init__.py /tmp/fake.py
python3 -c 'import py_compile; py_compile.compile("/tmp/fake.py", "tests/__pycache__/test_tiny.cpython-311.pyc", invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)'
git add -f tests
