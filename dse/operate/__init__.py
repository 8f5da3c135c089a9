"""Operating what was designed: when, where and at what clock to run it, judged against the exact optimum.

The subjects: what a design is when it runs (:mod:`~dse.operate.device`), weeks of grid and load (:mod:`~dse.operate.traces`), the hour by
hour dynamics (:mod:`~dse.operate.simulation`), the filter that keeps deadlines (:mod:`~dse.operate.safety`), exact bounds
(:mod:`~dse.operate.optimum`), rules (:mod:`~dse.operate.policies`) and what learns (:mod:`dse.operate.agents`).
"""
