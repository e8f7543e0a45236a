"""Registers: small records that threads, processes or machines change together, for whoever counts over all of them.

A record is a dictionary of JSON under a name. It is changed by a function, in one step whoever else changes it: `base`
says how, `memory` holds the records of one process, `file` those of the processes of a machine, and `redis.register`
those of all who use a server. A store that can keep records for others has a method `register` (`RegisteringStore`).
"""
