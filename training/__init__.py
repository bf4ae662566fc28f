"""Training jobs: from logged traffic to an artifact that `router` serves.

One room a stage, in the order in which data flows; a room knows those before it, never those after
(an import contract holds it):

    log      files of any tool → the traffic table, and the table seen by request
    label    what says that an answer sufficed, and how its sources are put together
    ask      replay of logged prompts and judging of answers, within a budget
    learn    splits, features, heads, token models, embedding tables
    measure  metrics, intervals, worlds, slices, reports
    decide   goals, bounds, and the operating point that they lead to
    show     tables, pictures, pages, cards, explanations
    watch    drift, and the promise on live traffic
    retrain  challengers, the gate, the registry that serves the champion
    bench    peers' methods on the same rows

In the hall are

- the jobs that walk through the rooms: `train`, `resolve`, `evaluate`, `report_page`, `forget`,
  `tiers_file`, `demo`;
- the stages of `train`, which `retrain` and `bench` share: `ground`, `features`, `fit` (which
  gives what is `learned`), `finish`, `record`;
- what makes, checks and serves artifacts: `issue`, `export`, `golden`, `pyfunc`, `tracking`;
- what every room uses: `config`, `toml`, `files`, `rate`, `console`, `errors`;
- the door: `cli`, with a file of `commands` for each stage.
"""
