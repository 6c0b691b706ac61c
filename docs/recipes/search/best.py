"""Print the best point of the search."""

import json
from pathlib import Path

tasks = json.loads(Path("in/search.json").read_text())
best = min(tasks, key=lambda task: (task["result"]["error"], task["task"]))
print(f"best of {len(tasks)} points: error {best['result']['error']:.4f} at {best['parameters']}")
Path("result.json").write_text(
    json.dumps({"points": len(tasks), **best["result"], "parameters": best["parameters"]})
)
