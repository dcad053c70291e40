"""Engines in processes of their own, and the checks of models and engines that need a process of their own.

What stands for an engine, on which side, and on which threads it runs:

    ProcessEngine       server   the handle that the yard starts, sends to and joins; any thread
    RemoteEngineState   server   what the server knows of it, such as its open requests; threads of EngineProcess
    EngineProcess       server   one process and the engines in it: a thread that reads, one that writes
    EngineProcesses     server   all processes of a server; any thread
    EngineProgram       process  receives messages and passes them to its Engines, each on a thread of its own
"""
