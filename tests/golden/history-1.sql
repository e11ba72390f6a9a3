-- A store as schema 1 left it: two runs of which the second changed.
PRAGMA application_id = 1835628642;
PRAGMA user_version = 1;
CREATE TABLE run (
  id TEXT PRIMARY KEY, date TEXT NOT NULL, command TEXT NOT NULL,
  sha TEXT NOT NULL, committed TEXT NOT NULL, branch TEXT NOT NULL, dirty INTEGER NOT NULL,
  machine TEXT NOT NULL, processor TEXT NOT NULL, versions TEXT NOT NULL, document BLOB NOT NULL
);
CREATE TABLE figure (
  run TEXT NOT NULL REFERENCES run (id), place INTEGER NOT NULL, target TEXT NOT NULL, workload TEXT NOT NULL,
  name TEXT NOT NULL, value NUMERIC NOT NULL, unit TEXT NOT NULL, kind TEXT NOT NULL, better TEXT NOT NULL,
  low NUMERIC, high NUMERIC,
  PRIMARY KEY (run, place)
) WITHOUT ROWID;
INSERT INTO run VALUES ('a1', '2026-01-02T03:04:05.000000Z', 'flops', '1111111111111111111111111111111111111111',
  '2026-01-01T00:00:00Z', 'main', 0, '', '', '{"torch":"2.13.0"}', x'789cab562acecf4d55b22a292a4dad0500212404eb');
INSERT INTO run VALUES ('b2', '2026-01-03T03:04:05.000000Z', 'flops', '2222222222222222222222222222222222222222',
  '2026-01-02T00:00:00Z', 'main', 0, '', '', '{"torch":"2.13.0"}', x'789cab562acecf4d55b22a292a4dad0500212404eb');
INSERT INTO figure VALUES ('a1', 0, 'net', 'w', 'macs', 1000, 'MACs', 'counted', 'lower', NULL, NULL);
INSERT INTO figure VALUES ('b2', 0, 'net', 'w', 'macs', 1100, 'MACs', 'counted', 'lower', NULL, NULL);
