"""graphite-web for one machine: no accounts, sqlite, all data in one folder;
with `run`, which uses Django's server for developers, for loopback only."""
import os

# another one at each start: nobody logs in
SECRET_KEY = os.urandom(32).hex()
TIME_ZONE = "UTC"
LOG_ROTATION = False
STORAGE_DIR = os.environ["GRAPHITE_STORAGE_DIR"]
CONF_DIR = os.environ["GRAPHITE_CONF_DIR"]
WHISPER_DIR = STORAGE_DIR + "/whisper"
LOG_DIR = STORAGE_DIR + "/log"
INDEX_FILE = STORAGE_DIR + "/index"
GRAPHITE_ROOT = "/usr/share/graphite-web"
# the scripts of its pages are looked for in `content` of this folder: see run
WEBAPP_DIR = STORAGE_DIR
STATIC_ROOT = "/usr/share/graphite-web/static"
# what carbon-cache has not written yet
CARBONLINK_HOSTS = ["127.0.0.1:7002"]
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3",
                         "NAME": STORAGE_DIR + "/graphite.db"}}
