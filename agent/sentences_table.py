"""The sentences themselves: (Chinese, English) by event, cause and quality. Data only; see `agent.sentences`.

May import: nothing.
"""
# ruff: noqa: E501 - a sentence that stands on one line can be read and compared with its translation

from __future__ import annotations

from typing import Final, TypeAlias

Pair: TypeAlias = tuple[str, str]

DEVICE: Final[dict[str, Pair]] = {
    "refused": (
        "[{where} ]拒绝连接：机器在网上，但这个端口没有服务。请IT核对端口号，并确认设备的通信功能（如 Modbus TCP、OPC UA 服务器）已启用。",
        "the connection is refused[ by {where}]: the machine is on the network, but nothing listens on that port: "
        "check the port, and that the device's communication (such as Modbus TCP, or its OPC UA server) is switched on.",
    ),
    "no_route": (
        "网络不通[（{where:host}）]：先看机床是否开机，再查网线。",
        "no way to the machine[ ({where:host})]: see whether the machine is switched on, then check the network cable.",
    ),
    "connect_timeout": (
        "连接超时[（{where}）]：先看机床是否开机，再查网线；都正常请联系IT，检查防火墙，"
        "以及本机服务的地址白名单（systemd 的 IPAddressAllow）里有没有这个地址。",
        "no reply to the connection attempt[ to {where}]: see whether the machine is switched on, then check the cable; "
        "if both are fine call IT: a firewall, or the address is missing from this service's list (systemd "
        "drop-in, IPAddressAllow).",
    ),
    "name_unknown": (
        "主机名[ {host}] 解析不到：请IT检查DNS，或在配置里改用IP地址。",
        "the name[ {host}] cannot be resolved: check DNS, or write the IP address in the configuration.",
    ),
    "no_answer": (
        "连接正常[（{where}）]，但[站号 {unit_id} ]无应答：请IT核对站号（unit_id）；正在下载程序时也会这样，完成后自动恢复。",
        "the connection[ to {where}] stands, but[ unit {unit_id}] gives no answer: check the unit id; a program "
        "download does this too and passes by itself.",
    ),
    "no_answer_line": (
        "[线路 {line} 上][站号 {unit_id} ]无应答：核对站号、波特率、A/B线[；同一线路的其余 {others} 台照常采集]。",
        "no answer[ from unit {unit_id}][ on line {line}]: check unit id, baud rate, A/B wires[; the other {others} "
        "devices on it go on].",
    ),
    "closed_by_peer": (
        "设备主动断开了连接[（{where}）]：很多PLC只接受一个连接，看看触摸屏或别的软件是否占用；正在自动重连。",
        "the device closed the connection[ ({where})]: many PLCs take one connection only, see whether a panel or "
        "another program holds it; it is tried again by itself.",
    ),
    "bad_reply": (
        "应答与请求对不上[（{where}）][：{detail}]，这些数值已丢弃。请IT检查是否有两台设备用了同一个IP或站号，"
        "或该设备其实是 RTU over TCP。",
        "the reply does not fit the request[ ({where})][: {detail}]; nothing of it was used. Check for two devices with "
        "one address or unit id, or a device that speaks RTU over TCP.",
    ),
    "tls": (
        "加密连接失败[（{where}）][：{detail}]。请IT检查证书和网关时间。",
        "the encrypted connection failed[ ({where})][: {detail}]: check the certificates and the gateway's clock.",
    ),
    "session_refused": (
        "OPC UA 服务器拒绝会话[（{where}）][：{detail}]。请IT检查服务器的会话数上限、安全策略和用户。",
        "the OPC UA server refuses a session[ ({where})][: {detail}]: check its limit of sessions, its security "
        "policies and users.",
    ),
    "too_many_sessions": (
        "OPC UA 服务器[（{where}）]的会话数已满：请关掉不用的客户端（组态软件、UaExpert 等）；空出来后自动连上。",
        "the OPC UA server[ ({where})] has all its sessions taken: close clients that are not needed; this one connects by "
        "itself as soon as one is free.",
    ),
    "silent_subscription": (
        "连接正常，但服务器[（{where}）]已有[ {seconds:duration}]没有消息：正在重新订阅；反复出现请联系设备厂家。",
        "connected, but the server[ ({where})] has been silent[ for {seconds:duration}]: subscribing again; if this keeps "
        "happening ask the maker of the device.",
    ),
    "bad_layout": (
        "点表与设备对不上[：{address} 应为 {expected}，读到 {found}]。多半是下载了新程序、地址移动了，数值已停发；"
        "请IT核对点表。",
        "the tag list does not fit the device[: {address} should be {expected} and is {found}]. Most likely a new "
        "program moved the addresses: values are held back until the list fits; check it.",
    ),
    "untrusted": (
        "设备的证书还没有被信任[（{where}）]，不采集。指纹[ {thumbprint}]：请IT与设备上显示的核对，一致就执行 shopfloor cert trust {device}。",
        "the server's certificate[ ({where})] is not trusted yet, so nothing is read. Thumbprint[ {thumbprint}]: compare it with "
        "what the server itself shows, then run: shopfloor cert trust {device}.",
    ),
    "certificate_changed": (
        "设备的证书变了[（{where}）]，已拒绝：指纹[ {thumbprint}]，原来信任的是[ {trusted}]。请IT确认是否换过设备或证书；确认后执行 shopfloor cert trust {device}，否则可能有人冒充。",
        "the server[ ({where})] shows another certificate than the trusted one and is refused: thumbprint[ {thumbprint}], "
        "trusted was[ {trusted}]. Was the device or its certificate replaced? If so: shopfloor cert trust {device}; if "
        "not, somebody may pretend to be it.",
    ),
    "certificate_expired": (
        "设备的证书[（{where}）]已于[ {until}] 到期，已拒绝：请IT在设备上更换证书；也可能是时钟偏差（clock skew），本机时间[ {now}]，先核对。",
        "the server's certificate[ ({where})] ended[ on {until}] and is refused: renew it there. Or clock skew: it is[ {now}] "
        "here, so check this gateway's clock first.",
    ),
    "certificate_not_yet_valid": (
        "设备的证书[（{where}）][从 {since} 起]才有效，已拒绝：多半是时钟偏差（clock skew），本机时间[ {now}]，请IT核对网关和设备的时间。",
        "the server's certificate[ ({where})] is not valid[ before {since}] and is refused: most likely clock skew, it is[ {now}] "
        "here: check the clocks of gateway and server.",
    ),
    "certificate_unusable": (
        "设备的证书不能用[（{where}）][：{detail}]。请IT在设备上换一张证书（RSA 2048 位以上）。",
        "the server's certificate[ ({where})] cannot be used[: {detail}]: give it another one (RSA, 2048 bits or more).",
    ),
    "client_untrusted": (
        "设备不接受本网关的证书[（{where}）][：{detail}]。请IT把[ {file}] 复制到设备的受信任证书里，或在设备上点“接受”[；指纹 {thumbprint}]。",
        "the server[ ({where})] does not accept this gateway's certificate[ ({detail})]: copy[ {file}] to its trusted "
        "certificates, or accept it there[; thumbprint {thumbprint}].",
    ),
    "own_certificate_time": (
        "设备认为本网关的证书此刻无效[（{where}）]：请IT核对设备和网关的时间。",
        "the server[ ({where})] finds this gateway's certificate not valid at this time: check the clocks of server and gateway.",
    ),
    "own_certificate_expired": (
        "本网关自己的证书已[于 {until} ]到期，或网关时间不对：请IT先核对时间，再执行 shopfloor cert renew，并把新证书复制到各设备。",
        "this gateway's own certificate ended[ on {until}], or its clock is wrong: check the clock, then run shopfloor cert "
        "renew and copy the new certificate to the servers.",
    ),
    "own_certificate_unusable": (
        "本网关的证书文件不能用[：{detail}]。请IT检查数据目录的权限、空间和网关时间。",
        "the certificates of this gateway cannot be used[: {detail}]: check rights and space of the data directory, and the clock.",
    ),
    "policy_not_offered": (
        "设备[（{where}）]不提供配置的安全策略[ {asked}]，不会自动降级；它提供：[{offered}]。请IT在设备上启用，或改配置里的 security。",
        "the server[ ({where})] does not offer the configured security[ {asked}], and nothing weaker is used instead; it offers:"
        "[ {offered}]. Switch it on there, or change security: in the configuration.",
    ),
    "login_refused": (
        "设备不接受这个用户[（{where}）][：{detail}]。请IT核对 username 和密码文件（password_file），或用户证书。",
        "the server[ ({where})] refuses this user[: {detail}]: check username and the password file, or the user certificate.",
    ),
    "login_needed": (
        "设备不接受匿名登录[（{where}）][：{detail}]。请IT在配置里写 username 和 password_file。",
        "the server[ ({where})] takes no anonymous session[: {detail}]: write username and password_file.",
    ),
    "login_not_offered": (
        "设备不支持这种登录方式[（{where}）]；它支持：[{offered}]。请IT改配置或设备的用户设置。",
        "the server[ ({where})] does not take this kind of login; it takes:[ {offered}]. Change the configuration, or the users "
        "of the server.",
    ),
    "password_in_clear": (
        "设备[（{where}）]要求明文密码，而 mode: Sign 不加密：没有发送。请IT改用 mode: SignAndEncrypt。",
        "the server[ ({where})] wants the password in the clear, and mode: Sign does not encrypt: nothing was sent. Use mode: "
        "SignAndEncrypt.",
    ),
    "line_in_use": (
        "线路[ {where}] 正被别的程序占用[（进程 {pid}）]：请IT关闭那个程序，本程序会自动重试。",
        "the line[ {where}] is held by another program[ (pid {pid})]: IT, close that one; this is tried again by itself.",
    ),
    "line_held_by_agent": (
        "线路[ {where}] 正由运行中的采集程序使用：用 `shopfloor status --values` 看数值，或先 `shopfloor pause` 暂停该线路。",
        "the line[ {where}] is in use by the running agent: `shopfloor pause`, or `status --values`.",
    ),
    "other_master": (
        "线路[ {where}] 上还有另一个主站在通讯（触摸屏、DTU或别的软件）：一条线只能有一个主站，请IT拆开或停掉一个；每分钟自动重试。",
        "another master (a panel, a modem, another program) speaks on the line[ {where}]: a line takes one, IT, unplug or "
        "stop one of them; this is tried again every minute.",
    ),
    "port_missing": (
        "串口[ {where}] 不见了：看看USB转换器是否插好；插上后自动恢复。",
        "the serial port[ {where}] is not there: see whether the adapter is plugged in; it is tried again by itself.",
    ),
    "port_forbidden": (
        "没有权限打开串口[ {where}]：请IT把运行用户加入 dialout 组。",
        "the serial port[ {where}] may not be opened: IT, put the agent's user into the group dialout.",
    ),
    "not_called": (
        "设备还没有拨入[ {where}]：请IT检查DTU的中心地址、端口和注册包，再看SIM卡和信号。",
        "nobody has called on[ {where}] yet: check the modem's centre address, port and registration, its SIM card and "
        "signal.",
    ),
    "two_callers": (
        "有两台设备用同一个注册包拨入[ {where}]，数据会混在一起，已停止采信：请IT给每台DTU设置不同的注册包；每分钟自动重试。",
        "two devices call on[ {where}] by one name, and values of one would pass for the other's: IT, give each modem a "
        "registration of its own; this is tried again every minute.",
    ),
    "listen_failed": (
        "端口[ {where}] 无法监听：请IT看是否被别的程序占用，或换一个端口。",
        "cannot listen on[ {where}]: IT, see whether another program holds the port, or choose another.",
    ),
    "missing_package": (
        "缺少组件[ {package}]：请IT安装[（pip 附加组件 {extra}）]。",
        "the package[ {package}] is not installed: IT, install it[ (the extra {extra} of shopfloor-agent)].",
    ),
    "bug": (
        "采集程序内部出错[（{detail}）]，只影响本设备，正在自动重试：请把日志发给IT。",
        "a fault in the collector itself[ ({detail})]; only this device is affected, it is tried again by itself: "
        "send the log to IT.",
    ),
    "misconfigured": (
        "配置与设备不符，已停止采集本设备：{text}。请IT改好配置后重新加载。",
        "the configuration cannot work with this device, which is not read: {text}. Correct it and reload.",
    ),
    "other": ("读不到数据：{text}", "cannot be read: {text}"),
}

BROKER: Final[dict[str, Pair]] = {
    "refused": (
        "那个端口没有服务，请IT看MQTT服务是否启动、端口是否写对",
        "nothing listens on that port: see whether the broker runs, and check the port",
    ),
    "no_route": (
        "网络不通，先看路由器和网线（或4G）指示灯，再联系IT",
        "no way there: look at the lamps of the router, the cable or the 4G modem, then call IT",
    ),
    "connect_timeout": (
        "连接超时，请IT检查网络、防火墙，以及本机服务的地址白名单（systemd 的 IPAddressAllow）",
        "no reply: check the network, the firewall, and this service's address list (systemd drop-in, IPAddressAllow)",
    ),
    "name_unknown": (
        "域名解析不到，请IT检查DNS，或在配置里改用IP地址",
        "the name cannot be resolved: check DNS, or write the IP address",
    ),
    "closed_by_peer": ("对方断开了连接，请IT看服务器日志", "the broker closed the connection: see its log"),
    "silent": (
        "连接还在但对方长时间没有应答，请IT检查网络和服务器",
        "the connection stands but nothing is acknowledged: check the network and the broker",
    ),
    "taken_over": (
        "有另一个客户端用了同一个 client_id，请IT查是否有克隆的网关",
        "another client came with the same client_id: is there a cloned gateway?",
    ),
    "bad_login": (
        "用户名或密码不对，请IT核对 username 和密码文件（password_file）",
        "user name or password is wrong: check username and the password file",
    ),
    "not_authorized": (
        "该用户没有权限，请IT检查用户名、密码文件和服务器上的权限",
        "this user is not allowed: check user, password file and the broker's access list",
    ),
    "client_id": (
        "对方不接受这个 client_id，请IT换一个",
        "the broker does not accept this client_id: choose another",
    ),
    "busy": ("服务器忙或在维护，稍后自动再连", "the broker is busy or under maintenance; it is tried again by itself"),
    "banned": ("该网关被服务器封禁，请IT在服务器上解除", "the broker has banned this gateway: lift the ban there"),
    "protocol": (
        "服务器不支持这个MQTT版本，请IT设置 protocol: 3.1.1",
        "the broker does not speak this MQTT version: set protocol: 3.1.1",
    ),
    "not_mqtt": (
        "对方的应答不是MQTT，请IT核对端口，以及该用 mqtt:// 还是 mqtts://",
        "the reply is not MQTT: check the port, and mqtt:// against mqtts://",
    ),
    "certificate_unknown": (
        "服务器证书不受信任，请IT检查 ca_file",
        "the broker's certificate is not trusted: check ca_file",
    ),
    "certificate_expired": (
        "服务器证书已过期，请IT更换证书（也要看网关时间对不对）",
        "the broker's certificate has expired: renew it (and check the gateway's clock)",
    ),
    "certificate_not_yet_valid": (
        "服务器证书尚未生效，多半是网关时间不对，请IT检查授时",
        "the broker's certificate is not valid yet: most likely the gateway's clock is wrong",
    ),
    "certificate_wrong_host": (
        "服务器证书上的名字与配置的地址不符，请IT核对 url，或更换证书",
        "the broker's certificate is for another name: check url, or renew the certificate",
    ),
    "client_certificate": (
        "服务器不接受本网关的证书，请IT检查 client_cert_file 和 client_key_file",
        "the broker does not accept this gateway's certificate: check client_cert_file and client_key_file",
    ),
    "tls": (
        "加密握手失败（{text}），请IT检查端口和证书",
        "the TLS handshake failed ({text}): check port and certificates",
    ),
    "other": ("{text}", "{text}"),
}

REASONS: Final[dict[str, Pair]] = {
    "message_parked.too-large": (
        "有一条消息太大，服务器不收[（{device} 第 {seq} 条）]，先放一边：请IT调大服务器上限或调小 max_payload。",
        "a message[ of {device}, number {seq},] is too large for the broker and waits aside: raise the broker's limit or "
        "lower max_payload.",
    ),
    "message_dropped.too-large": (
        "有一条消息太大，服务器始终不收，已放弃并计数[（{device} 第 {seq} 条）]：请IT调大服务器上限或调小 max_payload。",
        "a message[ of {device}, number {seq},] was given up (and counted): too large for the broker; raise its limit or "
        "lower max_payload.",
    ),
    "store_degraded.disk-full": (
        "磁盘已满，新数据暂存内存，断电会丢：请IT尽快清理磁盘。",
        "the disk is full: new data is kept in memory and a power cut would lose it: IT, free space soon.",
    ),
    "store_degraded.read-only": (
        "存储变成只读，新数据暂存内存，断电会丢：请IT检查硬盘或存储卡，先备份再更换。",
        "the storage has become read-only: new data is kept in memory and a power cut would lose it: IT, back up, then "
        "replace disk or card.",
    ),
    "store_degraded.io-error": (
        "存储读写出错，新数据暂存内存，断电会丢：请IT检查硬盘或存储卡，先备份再更换。",
        "the storage fails to write: new data is kept in memory and a power cut would lose it: IT, back up, then replace "
        "disk or card.",
    ),
    "store_degraded.cannot-open": (
        "缓存文件打不开，新数据暂存内存，断电会丢：请IT检查数据目录的权限和磁盘。",
        "the buffer's files cannot be opened: new data is kept in memory and a power cut would lose it: IT, check the "
        "rights of the data directory and the disk.",
    ),
    "store_degraded.no-room": (
        "磁盘剩余空间不够建缓存，新数据暂存内存，断电会丢：请IT尽快清理磁盘。",
        "too little room on the disk for the buffer: new data is kept in memory and a power cut would lose it: IT, free "
        "space soon.",
    ),
    "store_degraded.busy": (
        "缓存文件被别的程序占着，新数据暂存内存，断电会丢：请IT关闭打开它的程序（如数据库工具、备份）。",
        "another program holds the buffer's file: new data is kept in memory and a power cut would lose it: IT, close "
        "what has it open (a database tool, a backup).",
    ),
    "store_dropping.store-failing": (
        "磁盘写不了，内存也满了，最旧的数据正在丢失（已丢 {dropped} 条）：请IT马上处理磁盘。",
        "the disk cannot be written and the memory is full: the oldest data is being lost ({dropped:messages} so far): "
        "IT, see to the disk now.",
    ),
}

EVENTS: Final[dict[str, Pair]] = {
    "agent_started": (
        "采集程序启动，版本 {version}[，共 {devices} 台设备]。",
        "the agent starts, version {version}[, {devices:devices}].",
    ),
    "agent_ready": ("采集程序就绪。", "the agent is ready."),
    "agent_stopping": ("采集程序正在停止[（{signal}）]。", "the agent is stopping[ ({signal})]."),
    "agent_stopped": (
        "采集程序已停止[；还有 {buffered} 条数据存在本机，下次启动后补传]。",
        "the agent has stopped[; {buffered:messages} kept here, to be sent after the next start].",
    ),
    "agent_failed": (
        "采集程序出错退出[（{text}）]，systemd 会自动重启它，已存的数据不丢：请把日志发给IT。",
        "the agent failed[ ({text})] and ends; systemd starts it again, stored data is safe: send the log to IT.",
    ),
    "agent_stuck": (
        "采集程序有一部分 {seconds} 秒没有反应（{part}），请 systemd 重启它：常发生的话，请把日志发给IT，并检查磁盘。",
        "a part of the agent ({part}) has not come round for {seconds} s, and systemd is asked to start it again: if this "
        "happens often, send the log to IT, and check the disk.",
    ),
    "data_directory_in_use": (
        "另一个采集程序正在使用同一个数据目录，本次不启动[（{text}）]。",
        "another agent uses this data directory, so this one does not start[ ({text})].",
    ),
    "control_socket_failed": (
        "控制接口打不开，本次不启动[（{text}）]。",
        "the control socket cannot be opened, so the agent does not start[ ({text})].",
    ),
    "control_socket_unusable": (
        "控制接口打不开[（{text}）]：采集照常，但 status --values、pause、resume 暂不可用，请IT检查后重启服务。",
        "the control socket cannot be opened[ ({text})]: reading goes on, but status --values, pause and resume do not "
        "work: remove the cause and restart the agent.",
    ),
    "status_not_written": (
        "状态文件写不进去[（{text}）]：采集照常，但 status 会显示未运行，请IT检查目录权限和空间。",
        "the status files cannot be written[ ({text})]: reading goes on, but status will say that nothing runs: check "
        "rights and space of the directory.",
    ),
    "previous_run_lost": (
        "上一次没有正常停止（多半是断电），最后一两秒的数据可能缺失：常发生的话，请IT加装UPS。",
        "the previous run did not end properly (most likely a power cut); its last second or two may be missing: if this "
        "happens often, fit a UPS.",
    ),
    "config_reloaded": (
        "新配置已生效：新增 {added}，删除 {removed}，改动 {changed}，不变 {kept}。",
        "the new configuration is in force: {added} added, {removed} removed, {changed} changed, {kept} kept.",
    ),
    "config_refused": (
        "新配置有 {mistakes} 处错误，未采用，仍按原配置运行。第一处：{first}。请IT改好后重新加载（shopfloor check 可列出全部）。",
        "the new configuration was not taken ({mistakes:mistakes}); the old one keeps running. First: {first}. "
        "Correct it and reload (shopfloor check lists them all).",
    ),
    "restart_needed": (
        "这些改动要重启采集服务才生效：{keys}。请IT在方便时重启。",
        "these changes need a restart of the service: {keys}. IT, restart it when it suits.",
    ),
    "device_ok": ("已连上，开始采集[，共 {tags} 个点]。", "connected, being read[: {tags:tags}]."),
    "device_back": (
        "恢复正常[，中断了 {down_s:duration}]。",
        "back again[ after {down_s:duration}].",
    ),
    "device_degraded": (
        "{of} 个点中有 {bad} 个读不到[，如 {tag}（{why}）]；其余照常采集。请IT核对点表。",
        "{bad} of {of} tags cannot be read[, such as {tag} ({why})]; the others go on. Check the tag list.",
    ),
    "device_degraded.all": (
        "全部 {of} 个点都读不到[，如 {tag}][（{why}）]。请IT核对点表和设备状态。",
        "none of {of:tags} can be read[, such as {tag}][ ({why})]. Check the tag list and the device.",
    ),
    "device_recovered": ("所有点恢复正常。", "all tags can be read again."),
    "device_paused": (
        "已暂停采集[，{for_s:duration}后自动恢复]（提前恢复：shopfloor resume）。",
        "reading is paused[, and goes on by itself in {for_s:duration}] (sooner: shopfloor resume).",
    ),
    "device_resumed": ("恢复采集。", "reading goes on."),
    "device_slow": (
        "采集跟不上，漏采 {missed} 次：请IT加大采集间隔（interval）、减少点数，或把设备分到不同线路。",
        "reading does not keep up, {missed:polls} missed: IT, use a longer interval, fewer tags, or more lines.",
    ),
    "device_bug": (
        "采集程序内部出错，只影响本设备，正在自动重试：请把日志发给IT。",
        "a fault in the agent itself; only this device is affected, it is tried again by itself: send the log to IT.",
    ),
    "device_close_failed": (
        "断开设备时出错，不影响其余设备：请把日志发给IT。",
        "closing the connection failed; other devices are not affected: send the log to IT.",
    ),
    "device_clock_skew": (
        "设备时钟与网关相差 {offset_s:duration}，数据改用网关时间：请IT校对设备时钟。",
        "the device's clock is off by {offset_s:duration}, so data carries the gateway's time: set the device's clock.",
    ),
    "own_certificate_expires": (
        "本网关的证书还有 {days} 天（{until}）到期：请IT安排时间执行 shopfloor cert renew，并把新证书[ {file}] 复制到各设备。",
        "this gateway's certificate ends in {days:days} ({until}): plan a shopfloor cert renew, and copy the new certificate"
        "[ {file}] to every server.",
    ),
    "server_certificate_expires": (
        "设备的证书还有 {days} 天（{until}）到期：请IT在设备上更换，之后执行 shopfloor cert trust {device}。",
        "the server's certificate ends in {days:days} ({until}): renew it there, then run: shopfloor cert trust {device}.",
    ),
    "certificate_other_host": (
        "设备的证书写的是别的地址[（{hosts}）]，不是[ {where}]；证书已受信任，照常采集。请IT确认网线和地址没有接错。",
        "the server's certificate names other hosts[ ({hosts})] than[ {where}]; it is the trusted one, so reading goes on: make "
        "sure that address and cable are right.",
    ),
    "certificate_not_kept": (
        "被拒绝的设备证书存不下来[（{text}）]：请IT检查数据目录的权限和空间。",
        "the server's refused certificate could not be kept[ ({text})]: check rights and space of the data directory.",
    ),
    "endpoints_differ": (
        "设备[ {where}] 连接前公布的安全选项与签名后的不一致：可能刚改过设置，也可能有人中途篡改；连接用的是配置的策略，不受影响。请IT留意。",
        "what the server[ {where}] said of its security before the connection differs from what it signs: its settings were just "
        "changed, or somebody in between tampers. The connection uses what is configured and is not affected.",
    ),
    "tag_unreadable": (
        "点 {tag} 的数据类型无法使用[（{what}）]：请IT核对点表；其余的点照常采集。",
        "the type of tag {tag} cannot be used[ ({what})]: check the tag list; the others go on.",
    ),
    "tag_silent": (
        "点 {tag} 订阅成功但服务器从不发送，改为定时读取：请联系设备厂家；其余的点照常采集。",
        "the server accepts tag {tag} and never sends it, so it is read now and then instead: ask the maker of the device; "
        "the others go on.",
    ),
    "browse_empty": (
        "通配 {tag}（{pattern}）没有找到任何变量：请IT用 shopfloor browse 核对路径；每分钟自动再找。",
        "the pattern of {tag} ({pattern}) finds no variable: check it with shopfloor browse; it is looked for every minute.",
    ),
    "browse_capped": (
        "通配 {tag}（{pattern}）找到的变量太多，只采集前 {tags} 个：请IT缩小范围。",
        "the pattern of {tag} ({pattern}) finds too many variables, only the first {tags} are read: narrow it.",
    ),
    "deadband_without_range": (
        "点 {tag} 的死区写成了百分比，但服务器没有给出量程（EURange），死区不起作用：请IT改写成数值。",
        "tag {tag} has a deadband in percent, and the server tells no range (EURange) for it, so there is none: write a "
        "number.",
    ),
    "subscription_gap": (
        "OPC UA 服务器的消息丢了 {missing} 条，补回 {recovered} 条；没补回的已计数，并已重新读取当前值。",
        "{missing} messages of the OPC UA server were missing and {recovered} of them fetched; the others are counted, and "
        "every value is told anew.",
    ),
    "line_in_use": (
        "线路[ {where}] 正被别的程序占用[（进程 {pid}）]：请IT关闭那个程序，本程序会自动重试。",
        "the line[ {where}] is held by another program[ (pid {pid})]: IT, close that one; this is tried again by itself.",
    ),
    "broker_connected": (
        "已连上MQTT服务器 {url}[（MQTT {protocol}）]。",
        "connected to the broker {url}[ (MQTT {protocol})].",
    ),
    "broker_lost": (
        "与MQTT服务器[ {url}] 的连接断了：{why}。数据先存在本机[（已有 {buffered} 条）]，恢复后自动补传。",
        "the connection to the broker[ {url}] was lost: {why}. Data is kept here[ ({buffered:messages})] and sent when it "
        "is back.",
    ),
    "broker_refused": (
        "MQTT服务器[ {url}] 拒绝登录：{why}。数据先存在本机，[{retry_s:duration}后]自动再试。",
        "the broker[ {url}] refuses the login: {why}. Data is kept here; it is tried again[ in {retry_s:duration}].",
    ),
    "broker_unreachable": (
        "连不上MQTT服务器[ {url}]：{why}。数据先存在本机，恢复后自动补传。",
        "the broker[ {url}] cannot be reached: {why}. Data is kept here and sent when it is back.",
    ),
    "broker_fallback": (
        "MQTT服务器[ {url}] 不支持 MQTT 5，改用 3.1.1：被服务器权限拒绝的消息将无法察觉，请IT确认权限。",
        "the broker[ {url}] does not take MQTT 5, so 3.1.1 is used: messages that its access list refuses cannot be "
        "noticed; check the access list.",
    ),
    "broker_twin": (
        "另一台网关在用同一个 client_id（{client_id}），互相把对方挤下线[（{times} 次）]：多半是克隆的存储卡，请IT给每台网关取不同的名字。",
        "another gateway uses the same client_id ({client_id}), and each throws the other out[ ({times:times})]: a "
        "cloned card, most likely. Give each gateway a name of its own.",
    ),
    "message_parked": (
        "服务器不收一条消息[（{device} 第 {seq} 条，{reason}）]，先放一边稍后再试：请IT检查服务器上该主题的权限。",
        "the broker refuses a message[ ({device}, number {seq}, {reason})]; it waits aside and is tried again: check the "
        "access list for this topic.",
    ),
    "topic_barred": (
        "MQTT服务器一收到主题 {topic} 就断开连接，本次运行不再发它：请IT检查服务器对这个主题的权限和大小限制。",
        "the broker ends the connection whenever {topic} is published, so it is not published any more in this run: "
        "check the broker's rights and size limit for this topic.",
    ),
    "topic_shunned": (
        "MQTT服务器一收到主题 {topic} 的读数就断开连接，影响其他设备：先停发这个主题，最多每10分钟再试一次，期间的读数计入丢弃：请IT检查服务器对这个主题的权限和大小限制。",
        "the broker ends the connection whenever readings are published on {topic}, which hurts the other devices: they "
        "are left out, counted as refused, and tried again after a minute, later every ten. Check the broker's rights "
        "and size limit for this topic.",
    ),
    "retained_too_large": (
        "{topic} 的说明有 {bytes:size}，超过MQTT服务器的上限 {limit:size}，没有发出：请IT调大服务器上限，或把设备拆小。",
        "the document for {topic} has {bytes:size}, the broker takes {limit:size}; it was not sent: raise the broker's "
        "limit, or split the device.",
    ),
    "counters_too_large": (
        "采集程序自身的计数有 {bytes:size}，超过MQTT服务器的上限 {limit:size}，没有发出：请IT调大服务器上限。",
        "the agent's own counters have {bytes:size}, the broker takes {limit:size}; they were not sent: raise the "
        "broker's limit.",
    ),
    "retained_not_cleared": (
        "MQTT服务器不让删除旧主题 {topic}：请IT检查权限；下次连接再试。",
        "the broker refuses to clear the old topic {topic}: check the rights; it is tried again in the next session.",
    ),
    "retained_not_saved": (
        "记不住已发布的主题[：{text}]：采集不受影响；请IT检查数据目录。改名后旧主题可能留在服务器上。",
        "what was published cannot be remembered[: {text}]: reading goes on; check the data directory. After a "
        "renaming an old topic may stay at the broker.",
    ),
    "retained_forgotten": (
        "已发布主题的记录读不出来[：{text}]，重新开始记：采集不受影响，旧主题可能留在服务器上。",
        "the list of published topics could not be read[: {text}] and begins anew: reading goes on, an old topic may "
        "stay at the broker.",
    ),
    "message_dropped": (
        "服务器多次不收一条消息，已放弃并计数[（{device} 第 {seq} 条，{reason}）]：请IT检查服务器上该主题的权限。",
        "a message was given up, and counted[ ({device}, number {seq}, {reason})]: check the broker's access list for "
        "this topic.",
    ),
    "backlog_replay": (
        "开始补传中断期间的数据，共 {messages} 条；实时数据不受影响。",
        "the data of the outage is being sent, {messages:messages}; live data goes first.",
    ),
    "backlog_done": (
        "补传完成[，用时 {seconds:duration}]。",
        "the data of the outage has all been sent[, in {seconds:duration}].",
    ),
    "store_degraded": (
        "数据写不进磁盘[（{text}）]，暂存内存，断电会丢：请IT检查磁盘。",
        "data cannot be written to the disk[ ({text})]; it is kept in memory and a power cut would lose it: IT, check the "
        "disk.",
    ),
    "store_ok": (
        "磁盘恢复正常[，异常持续 {degraded_s:duration}][，期间丢失 {dropped} 条]。",
        "the disk takes data again[ after {degraded_s:duration}][; {dropped:messages} lost meanwhile].",
    ),
    "store_set_aside": (
        "缓存文件损坏，已改名保留为 {file} 并新建，采集继续：请IT检查硬盘或存储卡。",
        "the buffer's file was damaged; it is kept as {file}, a new one was made, and reading goes on: IT, check disk or "
        "card.",
    ),
    "store_gone": (
        "{directory} 里的缓存文件空了或不见了，已新建，采集继续；其中没发出的数据已丢失：请IT检查硬盘或存储卡。",
        "the buffer's file in {directory} was empty or gone; a new one was made, and reading goes on, but what waited in "
        "it is lost: IT, check disk or card.",
    ),
    "store_dropping": (
        "缓存已满，最旧的数据正在丢失（已丢 {dropped} 条）：请IT尽快恢复到MQTT服务器的网络，或调大 buffer.max_size。",
        "the buffer is full and the oldest data is being lost ({dropped:messages} so far): IT, bring the broker's "
        "connection back, or raise buffer.max_size.",
    ),
    "clock_unsynced": (
        "网关时间未同步，数据会带上标记：请IT设置授时服务器（NTP）。",
        "the gateway's clock is not synchronised, and data is marked so: IT, set a time server (NTP).",
    ),
    "clock_synced": (
        "网关时间已同步[，调整了 {stepped_ms} 毫秒]。",
        "the gateway's clock is synchronised[, it was set by {stepped_ms} ms].",
    ),
    "clock_stepped": (
        "网关时间跳变了 {stepped_ms} 毫秒：常发生的话，请IT检查授时（NTP）和主板电池。",
        "the gateway's clock jumped by {stepped_ms} ms: if this happens often, check its time server and battery.",
    ),
    "plaintext_broker": (
        "到 {url} 的数据没有加密：出了厂区请IT改用 mqtts://。",
        "data to {url} is not encrypted: beyond your own network use mqtts://.",
    ),
    "log_suppressed": (
        "同类日志太多，一分钟内省略了 {lines} 条（{of}）。",
        "too many lines of one kind: {lines:lines} left out within a minute ({of}).",
    ),
    "log_lost": (
        "日志写不进去，丢了 {lines} 条[（{reason}）]：请IT检查磁盘。",
        "{lines:lines} of the log could not be written[ ({reason})]: IT, check the disk.",
    ),
    "library_log": ("组件 {logger} 报告：{text}", "{logger} reports: {text}"),
}

QUALITY: Final[dict[str, Pair]] = {
    "good": ("正常", "good"),
    "timeout": ("超时", "no answer in time"),
    "not-connected": ("未连接", "not connected"),
    "exception": ("设备拒绝，异常码 {code}", "refused by the device, exception {code}"),
    "status": ("OPC UA 状态 {code}", "OPC UA status {code}"),
    "decode": ("无法解码", "cannot be decoded"),
    "range": ("超出范围", "out of range"),
    "invalid": ("无效值", "marked invalid by the device"),
    "quarantined": ("地址有误，已隔离", "bad address, set aside"),
    "paused": ("已暂停", "paused"),
    "off": ("计划停用", "planned off"),
    "layout": ("与设备布局不符", "does not fit the device's layout"),
    "config": ("配置有误", "wrong configuration"),
    "stale": ("数据过旧", "too old"),
}
