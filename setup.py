"""Everything about the package is said once, in settings.ini; this file only hands it to setuptools."""
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

here = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(here/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

# Every `NAME_requirements` of settings.ini becomes the extra `NAME`.
extras = {k.removesuffix('_requirements'): v.split() for k, v in cfg.items() if k.endswith('_requirements')}

# README links relative to the repository, which PyPI cannot follow: there pictures and pages get their full address.
def full_address(m):
    view = 'raw' if m[2].endswith(('.png', '.gif', '.jpg', '.svg')) else 'blob'
    return f"{m[1]}{cfg['git_url']}/{view}/{cfg['branch']}/{m[2]}"
readme = re.sub(r'(\]\(|\bsrc="|\bhref=")(?![a-zA-Z][a-zA-Z0-9+.-]*:|#|/)([^)"\s]+)', full_address, (here/'README.md').read_text(encoding='utf-8'))

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0',
    long_description=readme, long_description_content_type='text/markdown',
    # package_dir makes an editable install put the clone on the path: the default finder of setuptools comes after the current
    # directory, so that Python started beside a clone called oniris would import the clone's folder as an empty namespace package
    package_dir={'': '.'}, packages=find_packages(include=['oniris', 'oniris.*']), package_data={'oniris': ['assets/*', 'assets/*/*', 'assets/*/*/*']},
    python_requires=f">={cfg['min_python']}", install_requires=cfg['requirements'].split(), extras_require=extras,
    entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': [f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d"]},
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Developers', 'Intended Audience :: Science/Research',
                 'Programming Language :: Python :: 3', 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
    zip_safe=False)
