"""Reading files with distrust of their content, and writing files whole or not at all."""

from lmu.files.archives import tar_members as tar_members
from lmu.files.archives import unpack as unpack
from lmu.files.archives import zip_member as zip_member
from lmu.files.archives import zip_members as zip_members
from lmu.files.checkpoints import read_checkpoint as read_checkpoint
from lmu.files.checkpoints import written_checkpoint as written_checkpoint
from lmu.files.refusals import DamagedFile as DamagedFile
from lmu.files.refusals import explain_os_errors as explain_os_errors
from lmu.files.refusals import explain_parser_errors as explain_parser_errors
from lmu.files.refusals import refuse_devices as refuse_devices
from lmu.files.text import decode as decode
from lmu.files.text import iterate_lines as iterate_lines
from lmu.files.text import parse_json as parse_json
from lmu.files.text import read_bytes as read_bytes
from lmu.files.text import read_json as read_json
from lmu.files.text import read_text as read_text
from lmu.files.torch_checkpoints import write_torch_checkpoint as write_torch_checkpoint
from lmu.files.writing import PART as PART
from lmu.files.writing import append as append
from lmu.files.writing import write as write
