"""Say what is wrong with a machine, a hub or an agent, and for each thing the line that mends it."""

from deploy.doctor.findings import Finding, Look, examined, exit_status

__all__ = ["Finding", "Look", "examined", "exit_status"]
