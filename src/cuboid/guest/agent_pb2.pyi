from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Hello(_message.Message):
    __slots__ = ("version", "nonce")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    version: int
    nonce: bytes
    def __init__(self, version: _Optional[int] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class HelloAck(_message.Message):
    __slots__ = ("version", "nonce", "agent_version", "boot_id", "first_event")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    AGENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_EVENT_FIELD_NUMBER: _ClassVar[int]
    version: int
    nonce: bytes
    agent_version: str
    boot_id: str
    first_event: int
    def __init__(self, version: _Optional[int] = ..., nonce: _Optional[bytes] = ..., agent_version: _Optional[str] = ..., boot_id: _Optional[str] = ..., first_event: _Optional[int] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("setup", "start_container", "signal", "remove_container", "exec", "attach", "resize", "logs", "ack_logs", "copy_in", "copy_out", "write_volume", "stats", "list", "shutdown", "port_forward", "set_time", "rehearse", "renew", "set_resources")
    SETUP_FIELD_NUMBER: _ClassVar[int]
    START_CONTAINER_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    REMOVE_CONTAINER_FIELD_NUMBER: _ClassVar[int]
    EXEC_FIELD_NUMBER: _ClassVar[int]
    ATTACH_FIELD_NUMBER: _ClassVar[int]
    RESIZE_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    ACK_LOGS_FIELD_NUMBER: _ClassVar[int]
    COPY_IN_FIELD_NUMBER: _ClassVar[int]
    COPY_OUT_FIELD_NUMBER: _ClassVar[int]
    WRITE_VOLUME_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    LIST_FIELD_NUMBER: _ClassVar[int]
    SHUTDOWN_FIELD_NUMBER: _ClassVar[int]
    PORT_FORWARD_FIELD_NUMBER: _ClassVar[int]
    SET_TIME_FIELD_NUMBER: _ClassVar[int]
    REHEARSE_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    SET_RESOURCES_FIELD_NUMBER: _ClassVar[int]
    setup: Setup
    start_container: StartContainer
    signal: Signal
    remove_container: RemoveContainer
    exec: Exec
    attach: Attach
    resize: Resize
    logs: Logs
    ack_logs: AckLogs
    copy_in: CopyIn
    copy_out: CopyOut
    write_volume: WriteVolume
    stats: GetStats
    list: List
    shutdown: Shutdown
    port_forward: PortForward
    set_time: SetTime
    rehearse: Rehearse
    renew: Renew
    set_resources: SetResources
    def __init__(self, setup: _Optional[_Union[Setup, _Mapping]] = ..., start_container: _Optional[_Union[StartContainer, _Mapping]] = ..., signal: _Optional[_Union[Signal, _Mapping]] = ..., remove_container: _Optional[_Union[RemoveContainer, _Mapping]] = ..., exec: _Optional[_Union[Exec, _Mapping]] = ..., attach: _Optional[_Union[Attach, _Mapping]] = ..., resize: _Optional[_Union[Resize, _Mapping]] = ..., logs: _Optional[_Union[Logs, _Mapping]] = ..., ack_logs: _Optional[_Union[AckLogs, _Mapping]] = ..., copy_in: _Optional[_Union[CopyIn, _Mapping]] = ..., copy_out: _Optional[_Union[CopyOut, _Mapping]] = ..., write_volume: _Optional[_Union[WriteVolume, _Mapping]] = ..., stats: _Optional[_Union[GetStats, _Mapping]] = ..., list: _Optional[_Union[List, _Mapping]] = ..., shutdown: _Optional[_Union[Shutdown, _Mapping]] = ..., port_forward: _Optional[_Union[PortForward, _Mapping]] = ..., set_time: _Optional[_Union[SetTime, _Mapping]] = ..., rehearse: _Optional[_Union[Rehearse, _Mapping]] = ..., renew: _Optional[_Union[Renew, _Mapping]] = ..., set_resources: _Optional[_Union[SetResources, _Mapping]] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("error", "empty", "setup", "started", "exit", "stats", "state", "logs", "removed")
    ERROR_FIELD_NUMBER: _ClassVar[int]
    EMPTY_FIELD_NUMBER: _ClassVar[int]
    SETUP_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    STATS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    error: Error
    empty: Empty
    setup: SetupDone
    started: Started
    exit: ExitStatus
    stats: Stats
    state: State
    logs: LogsEnd
    removed: RemovedContainer
    def __init__(self, error: _Optional[_Union[Error, _Mapping]] = ..., empty: _Optional[_Union[Empty, _Mapping]] = ..., setup: _Optional[_Union[SetupDone, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., exit: _Optional[_Union[ExitStatus, _Mapping]] = ..., stats: _Optional[_Union[Stats, _Mapping]] = ..., state: _Optional[_Union[State, _Mapping]] = ..., logs: _Optional[_Union[LogsEnd, _Mapping]] = ..., removed: _Optional[_Union[RemovedContainer, _Mapping]] = ...) -> None: ...

class Empty(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "errno")
    class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[Error.Code]
        INVALID: _ClassVar[Error.Code]
        NOT_FOUND: _ClassVar[Error.Code]
        CONFLICT: _ClassVar[Error.Code]
        COMMAND_NOT_FOUND: _ClassVar[Error.Code]
        COMMAND_NOT_EXECUTABLE: _ClassVar[Error.Code]
        NO_SPACE: _ClassVar[Error.Code]
        NO_MEMORY: _ClassVar[Error.Code]
        FAILED: _ClassVar[Error.Code]
        UNSUPPORTED: _ClassVar[Error.Code]
        USER_NOT_FOUND: _ClassVar[Error.Code]
    UNKNOWN: Error.Code
    INVALID: Error.Code
    NOT_FOUND: Error.Code
    CONFLICT: Error.Code
    COMMAND_NOT_FOUND: Error.Code
    COMMAND_NOT_EXECUTABLE: Error.Code
    NO_SPACE: Error.Code
    NO_MEMORY: Error.Code
    FAILED: Error.Code
    UNSUPPORTED: Error.Code
    USER_NOT_FOUND: Error.Code
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERRNO_FIELD_NUMBER: _ClassVar[int]
    code: Error.Code
    message: str
    errno: int
    def __init__(self, code: _Optional[_Union[Error.Code, str]] = ..., message: _Optional[str] = ..., errno: _Optional[int] = ...) -> None: ...

class Setup(_message.Message):
    __slots__ = ("hostname", "hosts", "resolver", "interfaces", "sysctls", "images", "writable", "volumes", "now_unix_ns", "entropy", "shm_bytes", "share_process_namespace", "log_spool_bytes", "pod_ip", "domainname", "machine_id", "boot_id")
    class SysctlsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    RESOLVER_FIELD_NUMBER: _ClassVar[int]
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    SYSCTLS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    NOW_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    SHM_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHARE_PROCESS_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LOG_SPOOL_BYTES_FIELD_NUMBER: _ClassVar[int]
    POD_IP_FIELD_NUMBER: _ClassVar[int]
    DOMAINNAME_FIELD_NUMBER: _ClassVar[int]
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    hosts: _containers.RepeatedCompositeFieldContainer[Host]
    resolver: Resolver
    interfaces: _containers.RepeatedCompositeFieldContainer[Interface]
    sysctls: _containers.ScalarMap[str, str]
    images: _containers.RepeatedCompositeFieldContainer[Device]
    writable: Device
    volumes: _containers.RepeatedCompositeFieldContainer[Volume]
    now_unix_ns: int
    entropy: bytes
    shm_bytes: int
    share_process_namespace: bool
    log_spool_bytes: int
    pod_ip: str
    domainname: str
    machine_id: str
    boot_id: str
    def __init__(self, hostname: _Optional[str] = ..., hosts: _Optional[_Iterable[_Union[Host, _Mapping]]] = ..., resolver: _Optional[_Union[Resolver, _Mapping]] = ..., interfaces: _Optional[_Iterable[_Union[Interface, _Mapping]]] = ..., sysctls: _Optional[_Mapping[str, str]] = ..., images: _Optional[_Iterable[_Union[Device, _Mapping]]] = ..., writable: _Optional[_Union[Device, _Mapping]] = ..., volumes: _Optional[_Iterable[_Union[Volume, _Mapping]]] = ..., now_unix_ns: _Optional[int] = ..., entropy: _Optional[bytes] = ..., shm_bytes: _Optional[int] = ..., share_process_namespace: _Optional[bool] = ..., log_spool_bytes: _Optional[int] = ..., pod_ip: _Optional[str] = ..., domainname: _Optional[str] = ..., machine_id: _Optional[str] = ..., boot_id: _Optional[str] = ...) -> None: ...

class Rehearse(_message.Message):
    __slots__ = ("setup", "start")
    SETUP_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    setup: Setup
    start: StartContainer
    def __init__(self, setup: _Optional[_Union[Setup, _Mapping]] = ..., start: _Optional[_Union[StartContainer, _Mapping]] = ...) -> None: ...

class Renew(_message.Message):
    __slots__ = ("now_unix_ns", "entropy", "hostname", "hosts", "interfaces", "machine_id", "boot_id", "pod_ip")
    NOW_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    POD_IP_FIELD_NUMBER: _ClassVar[int]
    now_unix_ns: int
    entropy: bytes
    hostname: str
    hosts: _containers.RepeatedCompositeFieldContainer[Host]
    interfaces: _containers.RepeatedCompositeFieldContainer[Interface]
    machine_id: str
    boot_id: str
    pod_ip: str
    def __init__(self, now_unix_ns: _Optional[int] = ..., entropy: _Optional[bytes] = ..., hostname: _Optional[str] = ..., hosts: _Optional[_Iterable[_Union[Host, _Mapping]]] = ..., interfaces: _Optional[_Iterable[_Union[Interface, _Mapping]]] = ..., machine_id: _Optional[str] = ..., boot_id: _Optional[str] = ..., pod_ip: _Optional[str] = ...) -> None: ...

class Host(_message.Message):
    __slots__ = ("ip", "names")
    IP_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    ip: str
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ip: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class Resolver(_message.Message):
    __slots__ = ("nameservers", "search", "options")
    NAMESERVERS_FIELD_NUMBER: _ClassVar[int]
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    nameservers: _containers.RepeatedScalarFieldContainer[str]
    search: _containers.RepeatedScalarFieldContainer[str]
    options: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, nameservers: _Optional[_Iterable[str]] = ..., search: _Optional[_Iterable[str]] = ..., options: _Optional[_Iterable[str]] = ...) -> None: ...

class Interface(_message.Message):
    __slots__ = ("mac", "name", "mtu", "addresses", "routes", "device")
    MAC_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MTU_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    mac: str
    name: str
    mtu: int
    addresses: _containers.RepeatedScalarFieldContainer[str]
    routes: _containers.RepeatedCompositeFieldContainer[IpRoute]
    device: str
    def __init__(self, mac: _Optional[str] = ..., name: _Optional[str] = ..., mtu: _Optional[int] = ..., addresses: _Optional[_Iterable[str]] = ..., routes: _Optional[_Iterable[_Union[IpRoute, _Mapping]]] = ..., device: _Optional[str] = ...) -> None: ...

class IpRoute(_message.Message):
    __slots__ = ("destination", "gateway")
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    destination: str
    gateway: str
    def __init__(self, destination: _Optional[str] = ..., gateway: _Optional[str] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("name", "serial")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    name: str
    serial: str
    def __init__(self, name: _Optional[str] = ..., serial: _Optional[str] = ...) -> None: ...

class Volume(_message.Message):
    __slots__ = ("name", "memory", "disk", "block", "files", "nfs", "fs_group")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    DISK_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    NFS_FIELD_NUMBER: _ClassVar[int]
    FS_GROUP_FIELD_NUMBER: _ClassVar[int]
    name: str
    memory: MemoryVolume
    disk: DiskVolume
    block: BlockVolume
    files: FilesVolume
    nfs: NfsVolume
    fs_group: int
    def __init__(self, name: _Optional[str] = ..., memory: _Optional[_Union[MemoryVolume, _Mapping]] = ..., disk: _Optional[_Union[DiskVolume, _Mapping]] = ..., block: _Optional[_Union[BlockVolume, _Mapping]] = ..., files: _Optional[_Union[FilesVolume, _Mapping]] = ..., nfs: _Optional[_Union[NfsVolume, _Mapping]] = ..., fs_group: _Optional[int] = ...) -> None: ...

class MemoryVolume(_message.Message):
    __slots__ = ("size_bytes", "huge_pages")
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    HUGE_PAGES_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    huge_pages: bool
    def __init__(self, size_bytes: _Optional[int] = ..., huge_pages: _Optional[bool] = ...) -> None: ...

class DiskVolume(_message.Message):
    __slots__ = ("size_bytes",)
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    def __init__(self, size_bytes: _Optional[int] = ...) -> None: ...

class BlockVolume(_message.Message):
    __slots__ = ("serial", "fs_type", "read_only", "options")
    SERIAL_FIELD_NUMBER: _ClassVar[int]
    FS_TYPE_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    serial: str
    fs_type: str
    read_only: bool
    options: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, serial: _Optional[str] = ..., fs_type: _Optional[str] = ..., read_only: _Optional[bool] = ..., options: _Optional[_Iterable[str]] = ...) -> None: ...

class FilesVolume(_message.Message):
    __slots__ = ("memory", "files")
    MEMORY_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    memory: bool
    files: _containers.RepeatedCompositeFieldContainer[File]
    def __init__(self, memory: _Optional[bool] = ..., files: _Optional[_Iterable[_Union[File, _Mapping]]] = ...) -> None: ...

class NfsVolume(_message.Message):
    __slots__ = ("server", "path", "read_only", "options", "fs_type")
    SERVER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    FS_TYPE_FIELD_NUMBER: _ClassVar[int]
    server: str
    path: str
    read_only: bool
    options: str
    fs_type: str
    def __init__(self, server: _Optional[str] = ..., path: _Optional[str] = ..., read_only: _Optional[bool] = ..., options: _Optional[str] = ..., fs_type: _Optional[str] = ...) -> None: ...

class File(_message.Message):
    __slots__ = ("path", "content", "mode")
    PATH_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    path: str
    content: bytes
    mode: int
    def __init__(self, path: _Optional[str] = ..., content: _Optional[bytes] = ..., mode: _Optional[int] = ...) -> None: ...

class WriteVolume(_message.Message):
    __slots__ = ("volume", "files")
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    volume: str
    files: _containers.RepeatedCompositeFieldContainer[File]
    def __init__(self, volume: _Optional[str] = ..., files: _Optional[_Iterable[_Union[File, _Mapping]]] = ...) -> None: ...

class SetTime(_message.Message):
    __slots__ = ("now_unix_ns", "entropy")
    NOW_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_FIELD_NUMBER: _ClassVar[int]
    now_unix_ns: int
    entropy: bytes
    def __init__(self, now_unix_ns: _Optional[int] = ..., entropy: _Optional[bytes] = ...) -> None: ...

class SetupDone(_message.Message):
    __slots__ = ("kernel", "memory_bytes", "phases_ns", "boot_id")
    class PhasesNsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PHASES_NS_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    kernel: str
    memory_bytes: int
    phases_ns: _containers.ScalarMap[str, int]
    boot_id: str
    def __init__(self, kernel: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., phases_ns: _Optional[_Mapping[str, int]] = ..., boot_id: _Optional[str] = ...) -> None: ...

class Shutdown(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StartContainer(_message.Message):
    __slots__ = ("name", "attempt", "image", "args", "env", "cwd", "user", "security", "mounts", "resources", "rlimits", "tty", "stdin", "stdin_once", "tty_rows", "tty_cols", "termination_message_path", "keep_root", "probes", "tmpfs", "devices", "hostname", "process_target", "image_device", "await_attach")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    SECURITY_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    RLIMITS_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    STDIN_ONCE_FIELD_NUMBER: _ClassVar[int]
    TTY_ROWS_FIELD_NUMBER: _ClassVar[int]
    TTY_COLS_FIELD_NUMBER: _ClassVar[int]
    TERMINATION_MESSAGE_PATH_FIELD_NUMBER: _ClassVar[int]
    KEEP_ROOT_FIELD_NUMBER: _ClassVar[int]
    PROBES_FIELD_NUMBER: _ClassVar[int]
    TMPFS_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    PROCESS_TARGET_FIELD_NUMBER: _ClassVar[int]
    IMAGE_DEVICE_FIELD_NUMBER: _ClassVar[int]
    AWAIT_ATTACH_FIELD_NUMBER: _ClassVar[int]
    name: str
    attempt: int
    image: str
    args: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    cwd: str
    user: User
    security: Security
    mounts: _containers.RepeatedCompositeFieldContainer[Mount]
    resources: Resources
    rlimits: _containers.RepeatedCompositeFieldContainer[Rlimit]
    tty: bool
    stdin: bool
    stdin_once: bool
    tty_rows: int
    tty_cols: int
    termination_message_path: str
    keep_root: bool
    probes: _containers.RepeatedCompositeFieldContainer[Probe]
    tmpfs: _containers.RepeatedCompositeFieldContainer[Tmpfs]
    devices: _containers.RepeatedCompositeFieldContainer[DeviceNode]
    hostname: str
    process_target: str
    image_device: Device
    await_attach: bool
    def __init__(self, name: _Optional[str] = ..., attempt: _Optional[int] = ..., image: _Optional[str] = ..., args: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., cwd: _Optional[str] = ..., user: _Optional[_Union[User, _Mapping]] = ..., security: _Optional[_Union[Security, _Mapping]] = ..., mounts: _Optional[_Iterable[_Union[Mount, _Mapping]]] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ..., rlimits: _Optional[_Iterable[_Union[Rlimit, _Mapping]]] = ..., tty: _Optional[bool] = ..., stdin: _Optional[bool] = ..., stdin_once: _Optional[bool] = ..., tty_rows: _Optional[int] = ..., tty_cols: _Optional[int] = ..., termination_message_path: _Optional[str] = ..., keep_root: _Optional[bool] = ..., probes: _Optional[_Iterable[_Union[Probe, _Mapping]]] = ..., tmpfs: _Optional[_Iterable[_Union[Tmpfs, _Mapping]]] = ..., devices: _Optional[_Iterable[_Union[DeviceNode, _Mapping]]] = ..., hostname: _Optional[str] = ..., process_target: _Optional[str] = ..., image_device: _Optional[_Union[Device, _Mapping]] = ..., await_attach: _Optional[bool] = ...) -> None: ...

class User(_message.Message):
    __slots__ = ("name", "uid", "gid", "supplementary", "must_be_non_root")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    SUPPLEMENTARY_FIELD_NUMBER: _ClassVar[int]
    MUST_BE_NON_ROOT_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: int
    gid: int
    supplementary: _containers.RepeatedScalarFieldContainer[int]
    must_be_non_root: bool
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ..., supplementary: _Optional[_Iterable[int]] = ..., must_be_non_root: _Optional[bool] = ...) -> None: ...

class Security(_message.Message):
    __slots__ = ("privileged", "read_only_root", "no_new_privileges", "add_capabilities", "drop_capabilities", "seccomp_unconfined", "masked_paths", "read_only_paths", "unmasked")
    PRIVILEGED_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_ROOT_FIELD_NUMBER: _ClassVar[int]
    NO_NEW_PRIVILEGES_FIELD_NUMBER: _ClassVar[int]
    ADD_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    DROP_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    SECCOMP_UNCONFINED_FIELD_NUMBER: _ClassVar[int]
    MASKED_PATHS_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_PATHS_FIELD_NUMBER: _ClassVar[int]
    UNMASKED_FIELD_NUMBER: _ClassVar[int]
    privileged: bool
    read_only_root: bool
    no_new_privileges: bool
    add_capabilities: _containers.RepeatedScalarFieldContainer[str]
    drop_capabilities: _containers.RepeatedScalarFieldContainer[str]
    seccomp_unconfined: bool
    masked_paths: _containers.RepeatedScalarFieldContainer[str]
    read_only_paths: _containers.RepeatedScalarFieldContainer[str]
    unmasked: bool
    def __init__(self, privileged: _Optional[bool] = ..., read_only_root: _Optional[bool] = ..., no_new_privileges: _Optional[bool] = ..., add_capabilities: _Optional[_Iterable[str]] = ..., drop_capabilities: _Optional[_Iterable[str]] = ..., seccomp_unconfined: _Optional[bool] = ..., masked_paths: _Optional[_Iterable[str]] = ..., read_only_paths: _Optional[_Iterable[str]] = ..., unmasked: _Optional[bool] = ...) -> None: ...

class Mount(_message.Message):
    __slots__ = ("volume", "path", "sub_path", "read_only", "propagation")
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SUB_PATH_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    PROPAGATION_FIELD_NUMBER: _ClassVar[int]
    volume: str
    path: str
    sub_path: str
    read_only: bool
    propagation: str
    def __init__(self, volume: _Optional[str] = ..., path: _Optional[str] = ..., sub_path: _Optional[str] = ..., read_only: _Optional[bool] = ..., propagation: _Optional[str] = ...) -> None: ...

class Tmpfs(_message.Message):
    __slots__ = ("path", "size_bytes", "mode")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    path: str
    size_bytes: int
    mode: int
    def __init__(self, path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., mode: _Optional[int] = ...) -> None: ...

class DeviceNode(_message.Message):
    __slots__ = ("path", "type", "major", "minor", "mode")
    PATH_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    path: str
    type: str
    major: int
    minor: int
    mode: int
    def __init__(self, path: _Optional[str] = ..., type: _Optional[str] = ..., major: _Optional[int] = ..., minor: _Optional[int] = ..., mode: _Optional[int] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("cpu_millis", "cpu_weight", "memory_bytes", "pids")
    CPU_MILLIS_FIELD_NUMBER: _ClassVar[int]
    CPU_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    cpu_millis: int
    cpu_weight: int
    memory_bytes: int
    pids: int
    def __init__(self, cpu_millis: _Optional[int] = ..., cpu_weight: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., pids: _Optional[int] = ...) -> None: ...

class SetResources(_message.Message):
    __slots__ = ("container", "resources")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    container: str
    resources: Resources
    def __init__(self, container: _Optional[str] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ...) -> None: ...

class Rlimit(_message.Message):
    __slots__ = ("name", "soft", "hard")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOFT_FIELD_NUMBER: _ClassVar[int]
    HARD_FIELD_NUMBER: _ClassVar[int]
    name: str
    soft: int
    hard: int
    def __init__(self, name: _Optional[str] = ..., soft: _Optional[int] = ..., hard: _Optional[int] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("kind", "exec", "http", "tcp", "grpc", "initial_delay_ms", "period_ms", "timeout_ms", "success_threshold", "failure_threshold")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STARTUP: _ClassVar[Probe.Kind]
        LIVENESS: _ClassVar[Probe.Kind]
        READINESS: _ClassVar[Probe.Kind]
    STARTUP: Probe.Kind
    LIVENESS: Probe.Kind
    READINESS: Probe.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    EXEC_FIELD_NUMBER: _ClassVar[int]
    HTTP_FIELD_NUMBER: _ClassVar[int]
    TCP_FIELD_NUMBER: _ClassVar[int]
    GRPC_FIELD_NUMBER: _ClassVar[int]
    INITIAL_DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    PERIOD_MS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FAILURE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    kind: Probe.Kind
    exec: ExecAction
    http: HttpAction
    tcp: TcpAction
    grpc: GrpcAction
    initial_delay_ms: int
    period_ms: int
    timeout_ms: int
    success_threshold: int
    failure_threshold: int
    def __init__(self, kind: _Optional[_Union[Probe.Kind, str]] = ..., exec: _Optional[_Union[ExecAction, _Mapping]] = ..., http: _Optional[_Union[HttpAction, _Mapping]] = ..., tcp: _Optional[_Union[TcpAction, _Mapping]] = ..., grpc: _Optional[_Union[GrpcAction, _Mapping]] = ..., initial_delay_ms: _Optional[int] = ..., period_ms: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., success_threshold: _Optional[int] = ..., failure_threshold: _Optional[int] = ...) -> None: ...

class ExecAction(_message.Message):
    __slots__ = ("args",)
    ARGS_FIELD_NUMBER: _ClassVar[int]
    args: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, args: _Optional[_Iterable[str]] = ...) -> None: ...

class HttpAction(_message.Message):
    __slots__ = ("host", "port", "path", "tls", "headers")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    host: str
    port: int
    path: str
    tls: bool
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    def __init__(self, host: _Optional[str] = ..., port: _Optional[int] = ..., path: _Optional[str] = ..., tls: _Optional[bool] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class TcpAction(_message.Message):
    __slots__ = ("host", "port")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    host: str
    port: int
    def __init__(self, host: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class GrpcAction(_message.Message):
    __slots__ = ("port", "service")
    PORT_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    port: int
    service: str
    def __init__(self, port: _Optional[int] = ..., service: _Optional[str] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("pid", "started_unix_ns", "phases_ns")
    class PhasesNsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PID_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    PHASES_NS_FIELD_NUMBER: _ClassVar[int]
    pid: int
    started_unix_ns: int
    phases_ns: _containers.ScalarMap[str, int]
    def __init__(self, pid: _Optional[int] = ..., started_unix_ns: _Optional[int] = ..., phases_ns: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Signal(_message.Message):
    __slots__ = ("container", "number", "all", "exec_stream")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    EXEC_STREAM_FIELD_NUMBER: _ClassVar[int]
    container: str
    number: int
    all: bool
    exec_stream: int
    def __init__(self, container: _Optional[str] = ..., number: _Optional[int] = ..., all: _Optional[bool] = ..., exec_stream: _Optional[int] = ...) -> None: ...

class RemoveContainer(_message.Message):
    __slots__ = ("name", "keep_logs")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEEP_LOGS_FIELD_NUMBER: _ClassVar[int]
    name: str
    keep_logs: bool
    def __init__(self, name: _Optional[str] = ..., keep_logs: _Optional[bool] = ...) -> None: ...

class RemovedContainer(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Exec(_message.Message):
    __slots__ = ("container", "args", "env", "cwd", "user", "tty", "stdin", "rows", "cols", "privileged", "timeout_ms")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    CWD_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLS_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGED_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    container: str
    args: _containers.RepeatedScalarFieldContainer[str]
    env: _containers.RepeatedScalarFieldContainer[str]
    cwd: str
    user: User
    tty: bool
    stdin: bool
    rows: int
    cols: int
    privileged: bool
    timeout_ms: int
    def __init__(self, container: _Optional[str] = ..., args: _Optional[_Iterable[str]] = ..., env: _Optional[_Iterable[str]] = ..., cwd: _Optional[str] = ..., user: _Optional[_Union[User, _Mapping]] = ..., tty: _Optional[bool] = ..., stdin: _Optional[bool] = ..., rows: _Optional[int] = ..., cols: _Optional[int] = ..., privileged: _Optional[bool] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("container", "stdin", "stdout", "stderr", "history")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    STDIN_FIELD_NUMBER: _ClassVar[int]
    STDOUT_FIELD_NUMBER: _ClassVar[int]
    STDERR_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    container: str
    stdin: bool
    stdout: bool
    stderr: bool
    history: bool
    def __init__(self, container: _Optional[str] = ..., stdin: _Optional[bool] = ..., stdout: _Optional[bool] = ..., stderr: _Optional[bool] = ..., history: _Optional[bool] = ...) -> None: ...

class Resize(_message.Message):
    __slots__ = ("container", "stream", "rows", "cols")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLS_FIELD_NUMBER: _ClassVar[int]
    container: str
    stream: int
    rows: int
    cols: int
    def __init__(self, container: _Optional[str] = ..., stream: _Optional[int] = ..., rows: _Optional[int] = ..., cols: _Optional[int] = ...) -> None: ...

class PortForward(_message.Message):
    __slots__ = ("host", "port")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    host: str
    port: int
    def __init__(self, host: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class ExitStatus(_message.Message):
    __slots__ = ("code", "signal", "oom_killed", "finished_unix_ns", "message", "timed_out", "started_unix_ns")
    CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    OOM_KILLED_FIELD_NUMBER: _ClassVar[int]
    FINISHED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TIMED_OUT_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    code: int
    signal: int
    oom_killed: bool
    finished_unix_ns: int
    message: str
    timed_out: bool
    started_unix_ns: int
    def __init__(self, code: _Optional[int] = ..., signal: _Optional[int] = ..., oom_killed: _Optional[bool] = ..., finished_unix_ns: _Optional[int] = ..., message: _Optional[str] = ..., timed_out: _Optional[bool] = ..., started_unix_ns: _Optional[int] = ...) -> None: ...

class Logs(_message.Message):
    __slots__ = ("container", "offset", "follow")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    container: str
    offset: int
    follow: bool
    def __init__(self, container: _Optional[str] = ..., offset: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class LogsEnd(_message.Message):
    __slots__ = ("first_offset", "end_offset", "dropped_bytes")
    FIRST_OFFSET_FIELD_NUMBER: _ClassVar[int]
    END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    DROPPED_BYTES_FIELD_NUMBER: _ClassVar[int]
    first_offset: int
    end_offset: int
    dropped_bytes: int
    def __init__(self, first_offset: _Optional[int] = ..., end_offset: _Optional[int] = ..., dropped_bytes: _Optional[int] = ...) -> None: ...

class AckLogs(_message.Message):
    __slots__ = ("container", "offset")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    container: str
    offset: int
    def __init__(self, container: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class CopyIn(_message.Message):
    __slots__ = ("container", "path")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    container: str
    path: str
    def __init__(self, container: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class CopyOut(_message.Message):
    __slots__ = ("container", "path")
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    container: str
    path: str
    def __init__(self, container: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class GetStats(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Stats(_message.Message):
    __slots__ = ("unix_ns", "containers", "memory_total_bytes", "memory_available_bytes", "cpu_ns", "writable_total_bytes", "writable_used_bytes", "interfaces", "volumes", "agent_memory_bytes")
    UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_NS_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    INTERFACES_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    AGENT_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    unix_ns: int
    containers: _containers.RepeatedCompositeFieldContainer[ContainerStats]
    memory_total_bytes: int
    memory_available_bytes: int
    cpu_ns: int
    writable_total_bytes: int
    writable_used_bytes: int
    interfaces: _containers.RepeatedCompositeFieldContainer[InterfaceStats]
    volumes: _containers.RepeatedCompositeFieldContainer[VolumeStats]
    agent_memory_bytes: int
    def __init__(self, unix_ns: _Optional[int] = ..., containers: _Optional[_Iterable[_Union[ContainerStats, _Mapping]]] = ..., memory_total_bytes: _Optional[int] = ..., memory_available_bytes: _Optional[int] = ..., cpu_ns: _Optional[int] = ..., writable_total_bytes: _Optional[int] = ..., writable_used_bytes: _Optional[int] = ..., interfaces: _Optional[_Iterable[_Union[InterfaceStats, _Mapping]]] = ..., volumes: _Optional[_Iterable[_Union[VolumeStats, _Mapping]]] = ..., agent_memory_bytes: _Optional[int] = ...) -> None: ...

class ContainerStats(_message.Message):
    __slots__ = ("name", "cpu_ns", "memory_bytes", "memory_usage_bytes", "memory_limit_bytes", "rss_bytes", "pids", "read_bytes", "written_bytes", "disk_bytes", "oom_kills")
    NAME_FIELD_NUMBER: _ClassVar[int]
    CPU_NS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    OOM_KILLS_FIELD_NUMBER: _ClassVar[int]
    name: str
    cpu_ns: int
    memory_bytes: int
    memory_usage_bytes: int
    memory_limit_bytes: int
    rss_bytes: int
    pids: int
    read_bytes: int
    written_bytes: int
    disk_bytes: int
    oom_kills: int
    def __init__(self, name: _Optional[str] = ..., cpu_ns: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., memory_usage_bytes: _Optional[int] = ..., memory_limit_bytes: _Optional[int] = ..., rss_bytes: _Optional[int] = ..., pids: _Optional[int] = ..., read_bytes: _Optional[int] = ..., written_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., oom_kills: _Optional[int] = ...) -> None: ...

class InterfaceStats(_message.Message):
    __slots__ = ("name", "rx_bytes", "tx_bytes", "rx_packets", "tx_packets", "rx_dropped", "tx_dropped")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RX_BYTES_FIELD_NUMBER: _ClassVar[int]
    TX_BYTES_FIELD_NUMBER: _ClassVar[int]
    RX_PACKETS_FIELD_NUMBER: _ClassVar[int]
    TX_PACKETS_FIELD_NUMBER: _ClassVar[int]
    RX_DROPPED_FIELD_NUMBER: _ClassVar[int]
    TX_DROPPED_FIELD_NUMBER: _ClassVar[int]
    name: str
    rx_bytes: int
    tx_bytes: int
    rx_packets: int
    tx_packets: int
    rx_dropped: int
    tx_dropped: int
    def __init__(self, name: _Optional[str] = ..., rx_bytes: _Optional[int] = ..., tx_bytes: _Optional[int] = ..., rx_packets: _Optional[int] = ..., tx_packets: _Optional[int] = ..., rx_dropped: _Optional[int] = ..., tx_dropped: _Optional[int] = ...) -> None: ...

class VolumeStats(_message.Message):
    __slots__ = ("name", "total_bytes", "used_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    total_bytes: int
    used_bytes: int
    def __init__(self, name: _Optional[str] = ..., total_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ...) -> None: ...

class List(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class State(_message.Message):
    __slots__ = ("set_up", "containers", "last_event")
    SET_UP_FIELD_NUMBER: _ClassVar[int]
    CONTAINERS_FIELD_NUMBER: _ClassVar[int]
    LAST_EVENT_FIELD_NUMBER: _ClassVar[int]
    set_up: bool
    containers: _containers.RepeatedCompositeFieldContainer[ContainerState]
    last_event: int
    def __init__(self, set_up: _Optional[bool] = ..., containers: _Optional[_Iterable[_Union[ContainerState, _Mapping]]] = ..., last_event: _Optional[int] = ...) -> None: ...

class ContainerState(_message.Message):
    __slots__ = ("name", "attempt", "running", "pid", "started_unix_ns", "exit", "started_probe_ok", "ready_probe_ok", "live_probe_ok", "log_end_offset")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STARTED_UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    STARTED_PROBE_OK_FIELD_NUMBER: _ClassVar[int]
    READY_PROBE_OK_FIELD_NUMBER: _ClassVar[int]
    LIVE_PROBE_OK_FIELD_NUMBER: _ClassVar[int]
    LOG_END_OFFSET_FIELD_NUMBER: _ClassVar[int]
    name: str
    attempt: int
    running: bool
    pid: int
    started_unix_ns: int
    exit: ExitStatus
    started_probe_ok: bool
    ready_probe_ok: bool
    live_probe_ok: bool
    log_end_offset: int
    def __init__(self, name: _Optional[str] = ..., attempt: _Optional[int] = ..., running: _Optional[bool] = ..., pid: _Optional[int] = ..., started_unix_ns: _Optional[int] = ..., exit: _Optional[_Union[ExitStatus, _Mapping]] = ..., started_probe_ok: _Optional[bool] = ..., ready_probe_ok: _Optional[bool] = ..., live_probe_ok: _Optional[bool] = ..., log_end_offset: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("number", "unix_ns", "exited", "probe", "oom", "warning", "probe_failed", "volume_over_limit")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    UNIX_NS_FIELD_NUMBER: _ClassVar[int]
    EXITED_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    OOM_FIELD_NUMBER: _ClassVar[int]
    WARNING_FIELD_NUMBER: _ClassVar[int]
    PROBE_FAILED_FIELD_NUMBER: _ClassVar[int]
    VOLUME_OVER_LIMIT_FIELD_NUMBER: _ClassVar[int]
    number: int
    unix_ns: int
    exited: ContainerExited
    probe: ProbeChanged
    oom: OutOfMemory
    warning: Warning
    probe_failed: ProbeFailed
    volume_over_limit: VolumeOverLimit
    def __init__(self, number: _Optional[int] = ..., unix_ns: _Optional[int] = ..., exited: _Optional[_Union[ContainerExited, _Mapping]] = ..., probe: _Optional[_Union[ProbeChanged, _Mapping]] = ..., oom: _Optional[_Union[OutOfMemory, _Mapping]] = ..., warning: _Optional[_Union[Warning, _Mapping]] = ..., probe_failed: _Optional[_Union[ProbeFailed, _Mapping]] = ..., volume_over_limit: _Optional[_Union[VolumeOverLimit, _Mapping]] = ...) -> None: ...

class ContainerExited(_message.Message):
    __slots__ = ("name", "attempt", "exit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    attempt: int
    exit: ExitStatus
    def __init__(self, name: _Optional[str] = ..., attempt: _Optional[int] = ..., exit: _Optional[_Union[ExitStatus, _Mapping]] = ...) -> None: ...

class ProbeChanged(_message.Message):
    __slots__ = ("name", "attempt", "kind", "success", "message")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    attempt: int
    kind: Probe.Kind
    success: bool
    message: str
    def __init__(self, name: _Optional[str] = ..., attempt: _Optional[int] = ..., kind: _Optional[_Union[Probe.Kind, str]] = ..., success: _Optional[bool] = ..., message: _Optional[str] = ...) -> None: ...

class ProbeFailed(_message.Message):
    __slots__ = ("name", "attempt", "kind", "message")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    attempt: int
    kind: Probe.Kind
    message: str
    def __init__(self, name: _Optional[str] = ..., attempt: _Optional[int] = ..., kind: _Optional[_Union[Probe.Kind, str]] = ..., message: _Optional[str] = ...) -> None: ...

class OutOfMemory(_message.Message):
    __slots__ = ("name", "attempt", "pid", "process")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    PROCESS_FIELD_NUMBER: _ClassVar[int]
    name: str
    attempt: int
    pid: int
    process: str
    def __init__(self, name: _Optional[str] = ..., attempt: _Optional[int] = ..., pid: _Optional[int] = ..., process: _Optional[str] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class VolumeOverLimit(_message.Message):
    __slots__ = ("volume", "limit_bytes")
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    volume: str
    limit_bytes: int
    def __init__(self, volume: _Optional[str] = ..., limit_bytes: _Optional[int] = ...) -> None: ...
