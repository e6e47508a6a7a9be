"""The ranks of a group on several machines find each other."""

import psutil

from symnoise_ray.workers.backend import interface_of


def test_the_interface_of_an_address_of_this_machine_is_found():
    found = {
        entry.address: name
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family.name == "AF_INET"
    }
    assert found["127.0.0.1"] == "lo"
    assert {address: interface_of(address) for address in found} == found


def test_an_address_of_another_machine_has_no_interface_here():
    assert interface_of("192.0.2.1") is None
