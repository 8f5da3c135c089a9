"""What learns to operate, from exchangeable parts: who learns (imitation, DQN, PPO, contextual bandits), how it explores, what it
remembers, what keeps it safe, and what it replays. Learners are those of stable-baselines3 and sb3-contrib; what is learnt is a small
network or a linear model in a safetensors file, and runs on numpy alone.
"""
