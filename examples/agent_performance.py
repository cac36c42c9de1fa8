"""How well an agent works, recorded offline: conversations, failures, quality, response times, what the agents do."""

import sys
import time

from sessionstore import AgentOperationsTracker, AgentPerformanceTracker, AgentStatus, ConversationQuality

path = sys.argv[1] if len(sys.argv) > 1 else "performance.db"

with AgentPerformanceTracker(base_url=None, store=path) as perf, AgentOperationsTracker(base_url=None, store=path) as ops:
    ops.register_agent("agent_001", sdk_version="1.2.0")

    session_id = perf.start_conversation("agent_001", user_id="user_123")
    ops.update_agent_status("agent_001", AgentStatus.BUSY)
    perf.store.append(session_id, "user", "Where is my parcel?")
    time.sleep(0.05)  # the model thinks; the store sees how long
    perf.store.append(session_id, "assistant", "In Lisbon, it arrives tomorrow.", input_tokens=9, output_tokens=8)
    perf.end_conversation(session_id, quality_score=ConversationQuality.GOOD)

    failed = perf.start_conversation("agent_001")
    perf.record_failed_session(failed, "Connection timeout")

    ops.log_activity("agent_001", "parcel_lookup", {"carrier": "CTT"}, duration=0.05)
    ops.update_agent_status("agent_001", AgentStatus.IDLE)

    rates = perf.get_success_rates(agent_id="agent_001")["overall"]
    times = perf.get_response_times()["overall"]
    print(f"{rates['completed']} of {rates['total']} conversations went well, the success rate is {rates['success_rate']:.0%}")
    print(f"half of the answers came within {times['p50_ms']:.0f} ms")
    print(f"the agent is {ops.get_active_agents()[0]['status']}")
