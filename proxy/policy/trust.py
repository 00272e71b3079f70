"""Whose word about the client is believed, and who the client then is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

_MEMO_LIMIT = 4096
_LONGEST = 64
"""Characters of an address with brackets, scope and port; longer ones are nonsense."""

_NONSENSE = ("", False)


class TrustedPeers:
    """A listener's `trusted_proxies`.

    A peer on a unix socket has no address (""). It is trusted as soon as any
    network is listed: who lists one expects a proxy in front, and only a local
    process that the socket's permissions let in can be there. `unix:` is taken
    as an entry too, for a listener with nothing else to list.
    """

    __slots__ = ("_memo", "_networks", "_trusts_unix")

    def __init__(self, networks: tuple[str, ...]) -> None:
        self._trusts_unix = bool(networks)
        self._networks = tuple(_network(text) for text in networks if text != "unix:")
        self._memo: dict[str, tuple[str, bool]] = {}
        """Text as it came -> (plain address, trusted); strangers write it, so it is bounded."""

    def trusts(self, address: str) -> bool:
        """Whether this peer is trusted; "" is a peer on a unix socket."""
        if not address:
            return self._trusts_unix
        return self._judged(address)[1]

    def client(self, peer: str, forwarded_for: str) -> str:
        """The client's address: the right-most of X-Forwarded-For that is not trusted.

        That is the last one written by somebody we trust; what stands left of it
        anybody may have made up. When all are trusted it is the left-most.
        Something that is no address ends the walk at the last good one. Without
        the header, or when the peer itself is not trusted, it is the peer.
        """
        if not forwarded_for or not self.trusts(peer):
            return peer
        client = peer
        for element in reversed(forwarded_for.split(",")):
            text = element.strip()
            if not text:  # an empty element of a list means nothing (RFC 9110 section 5.6.1)
                continue
            address, is_trusted = self._judged(text)
            if not address:
                return client
            client = address
            if not is_trusted:
                return client
        return client

    def _judged(self, text: str) -> tuple[str, bool]:
        """(plain address, trusted); an empty address when the text is none."""
        known = self._memo.get(text)
        if known is not None:
            return known
        address = _address(text)
        if address is None:
            return _NONSENSE
        judged = (str(address), any(address in network for network in self._networks))
        if len(self._memo) >= _MEMO_LIMIT:
            self._memo.clear()
        self._memo[text] = judged
        return judged


def _network(text: str) -> IPv4Network | IPv6Network:
    """A network; one of IPv4-mapped addresses is the IPv4 network that it stands for."""
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((int(mapped), network.prefixlen - 96))
    return network


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address of `v4`, `v4:port`, `v6`, `[v6]` or `[v6]:port`, without scope, mapped to v4."""
    if len(text) > _LONGEST:
        return None
    host, port = _without_port(text)
    if port and not (port.isascii() and port.isdigit()):
        return None
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _without_port(text: str) -> tuple[str, str]:
    """(host, port or empty); a host that is left as nonsense is refused as an address."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return "", ""
        return host, rest[1:]
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, ""
