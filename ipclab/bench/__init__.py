"""The bench: what each mechanism does on this machine, and what it costs.

    plan.expand(options)      what was asked becomes cases; what cannot be measured here is refused with its reason
    run.run(cases, options)   samples of all cases, interleaved, until there are enough or the time is over
      calibrate                 how many messages make a sample long enough
      sample                    one sample, in processes made for it
        driver                    who moves the messages: native (loops in the core) or python
    statistics, store, compare, explain   what follows from the samples

What may not be believed without being checked is in the module of whoever checks it: placements in topology.py,
throttling and the rest of the machine in environment.py, payloads in the drivers.
"""
